//! The rival to beat: uWebSockets' own publish/subscribe, in C++.
//!
//! Configuration: uWebSockets 20 as crate `libuwebsockets-sys` 0.0.10 carries it, on epoll, no TLS,
//! no compression, g++ -O3 -march=native, one thread, everything else as it comes (`maxBackpressure`
//! 64 KiB, beyond which it drops the newest; pings after 2 minutes), but a longer listen backlog.
//! A tick is one deferred callback of its loop that publishes all updates; uWebSockets joins what a
//! client gets in one turn of the loop into one send.
//!
//! Compiled with the feature `uws` only, because it needs a C++ compiler.

use anyhow::Result;

use super::PeerOptions;

/// Runs this rival.
///
/// # Errors
/// When it does not start or fails, or was not compiled.
#[cfg(feature = "uws")]
pub(crate) fn run(options: &PeerOptions) -> Result<()> {
    super::rival::run(options, native::Uws::start)
}

/// Says how to get this rival.
///
/// # Errors
/// Always.
#[cfg(not(feature = "uws"))]
pub(crate) fn run(_: &PeerOptions) -> Result<()> {
    anyhow::bail!(
        "this build has no uWebSockets; with a C++ compiler there, build it in: \
         cargo run --release -p bench --features uws -- …"
    )
}

#[cfg(feature = "uws")]
mod native {
    #![expect(unsafe_code, reason = "uWebSockets is C++, and has no safe face")]

    use std::ffi::{c_char, c_int};
    use std::ptr::NonNull;
    use std::sync::mpsc;
    use std::thread::{self, JoinHandle};

    use anyhow::{Context, Result, bail};

    use super::super::RIVAL_UPDATE_BYTES;
    use super::super::rival::{self, BACKLOG, Server, Tick};

    /// The server of `uws.cpp`.
    #[repr(C)]
    struct Opaque {
        _private: [u8; 0],
    }

    unsafe extern "C" {
        fn rival_uws_open(topics: usize, backlog: c_int, port: *mut u16) -> *mut Opaque;
        fn rival_uws_run(server: *mut Opaque);
        fn rival_uws_publish(
            server: *mut Opaque,
            topics: *const u32,
            updates: *const c_char,
            count: usize,
            update_bytes: usize,
        );
        fn rival_uws_stop(server: *mut Opaque);
    }

    /// A server that runs on another thread.
    struct Handle(NonNull<Opaque>);

    // SAFETY: what is called through it from here takes a lock and wakes the server's thread.
    unsafe impl Send for Handle {}

    /// uWebSockets on a thread of its own.
    pub(super) struct Uws {
        port: u16,
        topics: usize,
        handle: Handle,
        thread: JoinHandle<Result<()>>,
    }

    impl Uws {
        pub(super) fn start(topics: usize) -> Result<Self> {
            let (found, opened) = mpsc::sync_channel(1);
            let thread = thread::spawn(move || {
                let mut port = 0;
                // SAFETY: the pointer is to a local that outlives the call.
                let server = unsafe { rival_uws_open(topics, BACKLOG as c_int, &raw mut port) };
                let handle = NonNull::new(server).context("no uWebSockets server")?;
                if port == 0 {
                    bail!("uWebSockets found no port to listen on");
                }
                if found.send((port, Handle(handle))).is_err() {
                    bail!("nobody waits for uWebSockets");
                }
                // SAFETY: this thread opened it, and the other one forgets it when it stops it.
                unsafe { rival_uws_run(server) };
                Ok(())
            });
            match opened.recv() {
                Ok((port, handle)) => Ok(Self { port, topics, handle, thread }),
                Err(_) => {
                    rival::join(thread)?;
                    bail!("uWebSockets has ended")
                }
            }
        }
    }

    impl Server for Uws {
        fn port(&self) -> u16 {
            self.port
        }

        fn publish(&mut self, tick: Tick) -> Result<()> {
            let topics: Vec<u32> = tick.iter().map(|update| update.topic).collect();
            if topics.iter().any(|topic| *topic as usize >= self.topics) {
                bail!("an update of a topic that there is not");
            }
            let updates: Vec<u8> = tick.iter().flat_map(|update| update.bytes).collect();
            // SAFETY: the server lives until it is stopped, which consumes `self`; topics and
            // updates are as many as is said, and are copied before the call returns.
            unsafe {
                rival_uws_publish(
                    self.handle.0.as_ptr(),
                    topics.as_ptr(),
                    updates.as_ptr().cast(),
                    topics.len(),
                    RIVAL_UPDATE_BYTES,
                );
            }
            Ok(())
        }

        fn stop(self) -> Result<()> {
            // SAFETY: the server lives, and nothing uses it hereafter.
            unsafe { rival_uws_stop(self.handle.0.as_ptr()) };
            rival::join(self.thread)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::super::super::rival::tests::{TOPICS, serves_each_client_its_topics};
        use super::*;

        #[test]
        fn each_client_gets_the_updates_of_its_topics_in_order() {
            serves_each_client_its_topics(Uws::start(TOPICS).unwrap());
        }
    }
}
