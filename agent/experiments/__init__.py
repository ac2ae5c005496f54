"""Asks the questions a diagnosis wants answered, within a budget."""
