"""What a load test found: in the terminal, and as a page of HTML with plots."""
