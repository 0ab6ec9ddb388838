"""The operations of the API by what they are about: a table, and a method for each line of it."""
