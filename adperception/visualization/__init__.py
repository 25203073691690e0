"""Pictures: headless by default."""
