"""What both halves stand on. Imports no JAX."""
