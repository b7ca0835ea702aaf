//! What the world holds during a warm frame.
