//! Exchanges on a socket to test against.
