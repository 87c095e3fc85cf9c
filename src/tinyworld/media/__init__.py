"""Reading and writing of video and PNG files. Knows nothing of data sets or models."""
