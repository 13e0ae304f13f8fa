//! Which addresses datagrams leave from.
