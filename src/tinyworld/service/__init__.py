"""A service for teams: videos and worlds by request, one at a time, each in a folder of its own."""
