"""What is made of regrets: intervals, growth, diagnostics, tables."""
