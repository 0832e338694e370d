"""Labels of captions: the questions, who answers them, and where the answers are kept."""
