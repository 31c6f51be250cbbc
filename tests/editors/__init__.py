"""What ships for editors and hooks beside the server: the VS Code extension, pre-commit hooks, workflow examples."""
