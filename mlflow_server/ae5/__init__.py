"""Releases on Anaconda Enterprise 5: build, upload, deploy, hand out, schedule, roll back."""
