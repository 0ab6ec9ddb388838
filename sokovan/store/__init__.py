"""What is remembered: tables, and one repository for every database."""
