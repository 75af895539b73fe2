//! Replay, to come.
