//! What the subscribers cost in memory, counted at the allocator: the formula of `limits.rs` holds
//! for connections that are idle and for those that are blocked.

#![expect(unsafe_code, reason = "an allocator that counts passes its calls on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tickfan::fanout::shard::{Shard, ShardOptions};
use tickfan::fanout::socket::Socket;
use tickfan::fanout::table::ConnectionKey;
use tickfan::limits::{
    BLOCKED_BYTES_MAX, CONNECTION_BYTES, LANE_BYTES, PING_EVERY_NS, SECOND_NS, SUBSCRIPTION_BYTES,
};
use tickfan::stats::Stats;
use tickfan_core::market::{Channel, Px, Qty, State, Venue, Why};
use tickfan_core::snapshot::Registry;
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::wire::Encoding;

/// The system's allocator, counting.
struct Counting;

static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A client that asks once, and reads nothing once it is told to.
struct Client {
    request: Vec<u8>,
    is_stalled: Arc<AtomicBool>,
}

impl Socket for Client {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(if self.is_stalled.load(Ordering::Relaxed) { bytes.len().min(1) } else { bytes.len() })
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let request = std::mem::take(&mut self.request);
        buffer[..request.len()].copy_from_slice(&request);
        Ok((!request.is_empty()).then_some(request.len()))
    }
}

/// A text frame of a client with a mask of zeros.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

const CONNECTIONS: usize = 2_000;
const SUBSCRIPTIONS: usize = 10;
const SYMBOLS: usize = 50;

#[test]
fn idle_and_blocked_connections_cost_what_the_formula_says() {
    let natives: Vec<Arc<str>> = (0..SYMBOLS).map(|i| format!("S{i}").into()).collect();
    let registry = Arc::new(Registry::new(SYMBOLS));
    let entries = registry.register(Venue::Sim, &natives, 1, 1).unwrap();
    for entry in &entries {
        let mut snapshot = (*entry.load()).clone();
        snapshot.status_mut(Channel::Book).turn(State::Live, Why::Synced, 1);
        for px in 1..=40 {
            snapshot.book.book.bids.set(Px(px), Qty(px));
        }
        entry.publish(Arc::new(snapshot));
    }
    let now = Arc::new(AtomicU64::new(1_000 * SECOND_NS));
    let clock = Arc::clone(&now);
    let marks = Arc::new(Marks::new(SYMBOLS, || ()));
    let mut shard = Shard::new(ShardOptions {
        id: 0,
        registry: Arc::clone(&registry),
        marks: Arc::clone(&marks),
        stats: Arc::new(Stats::default()),
        time: Box::new(move || clock.load(Ordering::Relaxed)),
    });

    let is_stalled = Arc::new(AtomicBool::new(false));
    let before = HELD_BYTES.load(Ordering::Relaxed);
    let mut client_bytes = 0;
    for connection in 0..CONNECTIONS {
        let symbols: Vec<String> = (0..SUBSCRIPTIONS)
            .map(|i| format!("\"sim:S{}\"", (connection + 5 * i) % SYMBOLS))
            .collect();
        let request = format!(
            r#"{{"op":"subscribe","channel":"book","depth":20,"symbols":[{}]}}"#,
            symbols.join(",")
        );
        let client = Client { request: masked(&request), is_stalled: Arc::clone(&is_stalled) };
        client_bytes += size_of::<Client>();
        let key: ConnectionKey = shard.accept(Box::new(client), Encoding::Json, b"");
        shard.on_readable(key);
    }
    let settle = |shard: &mut Shard| {
        for _ in 0..CONNECTIONS {
            if shard.turn() > now.load(Ordering::Relaxed) {
                break;
            }
        }
        shard.take_touched();
    };
    settle(&mut shard);
    // The pace passes, and with the first ping whatever was kept for a while.
    now.fetch_add(PING_EVERY_NS, Ordering::Relaxed);
    settle(&mut shard);
    assert_eq!(shard.connection_count(), CONNECTIONS);
    assert_eq!(shard.lane_count(), SYMBOLS);

    let idle = HELD_BYTES.load(Ordering::Relaxed) - before - client_bytes;
    let promised = CONNECTIONS * (CONNECTION_BYTES + SUBSCRIPTIONS * SUBSCRIPTION_BYTES)
        + shard.lane_count() * LANE_BYTES;
    println!(
        "{} bytes a connection with {SUBSCRIPTIONS} subscriptions, {} promised",
        idle / CONNECTIONS,
        promised / CONNECTIONS
    );
    assert!(idle <= promised, "{idle} bytes are held, {promised} were promised");

    is_stalled.store(true, Ordering::Relaxed);
    for step in 0..200 {
        for entry in &entries {
            let mut snapshot = (*entry.load()).clone();
            snapshot.version += 1;
            snapshot.book.changed = snapshot.version;
            let px = Px(1 + step % 40);
            snapshot.book.book.bids.set(px, Qty(1_000 + step));
            entry.publish(Arc::new(snapshot));
            marks.mark(entry.instrument.id, Channel::Book, now.load(Ordering::Relaxed));
        }
        now.fetch_add(SECOND_NS / 50, Ordering::Relaxed);
        settle(&mut shard);
    }
    let blocked = HELD_BYTES.load(Ordering::Relaxed) - before - client_bytes - idle;
    println!("{} bytes more a blocked connection", blocked / CONNECTIONS);
    let most = CONNECTIONS * BLOCKED_BYTES_MAX + shard.lane_count() * LANE_BYTES;
    assert!(
        blocked <= most,
        "{blocked} bytes are held beyond the idle ones, at most {most} may be"
    );
    // One send is kept, however long it lasts: here of ten small deltas or images.
    assert!(blocked / CONNECTIONS < 24 << 10, "{} bytes", blocked / CONNECTIONS);
}
