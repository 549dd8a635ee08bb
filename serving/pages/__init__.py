"""What people see in a browser: one style sheet, one catalogue of texts in two languages, and pages made from both."""
