"""A synthetic street: people who walk past cameras, and a tracker that makes mistakes."""
