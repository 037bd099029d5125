"""Networks that no public PyTorch library has, one file each, which needs PyTorch alone; exported folders hold them.

Nothing of the project imports them: they are copied.
"""
