//! Starts the real server in a folder of its own and talks to it.
