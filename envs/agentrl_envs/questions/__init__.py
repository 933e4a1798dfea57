"""Questions of your own, answered with any tools."""
