"""What people look at: from frozen rows to tables of text, plain in a pipe, rich in a terminal."""
