"""The sub-commands of `halfsure`, one module a concern."""
