"""What else tells of memorization: measures beside the paper's, one module each, from what a run keeps."""
