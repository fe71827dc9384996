"""Every setting, where it may come from, and the frozen `Settings` a command works with."""
