"""The decision log's parts: its rows, the book of contacts and spending, and the parts of batches."""
