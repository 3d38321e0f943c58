"""Where room workers live: the ``RoomHost`` port and its implementation with child processes."""
