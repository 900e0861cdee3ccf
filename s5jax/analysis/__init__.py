"""What one looks at afterwards."""
