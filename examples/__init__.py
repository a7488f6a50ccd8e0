"""Small programs that show how to use the package."""
