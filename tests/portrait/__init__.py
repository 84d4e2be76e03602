"""The pictures of the page that README opens with: `python -m tests.portrait docs`."""
