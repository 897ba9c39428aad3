"""What only the tracking application needs: prompts, the page, the pass through a video."""
