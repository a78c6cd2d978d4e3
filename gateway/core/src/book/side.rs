//! One side of a book: sorted levels in chunks that are shared until one of them changes.
//!
//! The feed thread alone changes it; snapshots hold clones, which cost one reference count. A change
//! copies the one chunk that it touches (and the list of chunks), however deep the side is.

use std::sync::Arc;

use crate::market::{Level, Px, Qty, Side};

/// Chunks hold about √n levels, and never aim below this: copying 32 levels costs less than finding
/// them in a longer list of chunks.
const CHUNK_LEVELS_MIN: usize = 32;

/// Levels that a copy has room for which is made for a new one: those that come before the next
/// publication need no further copy.
const CHUNK_LEVELS_SPARE: usize = 4;

/// A run of levels, best first, and the rank of its last.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    last_rank: i64,
    pub(crate) levels: Arc<Vec<Level>>,
}

/// The levels of one side, best first.
#[derive(Debug, Clone)]
pub struct BookSide {
    side: Side,
    len: usize,
    chunks: Arc<Vec<Chunk>>,
    /// Levels ranked beyond this lie below the venue's cut image: some may be missing.
    trusted_rank: Option<i64>,
}

/// Where a price stands on a side: the best has the lowest rank.
const fn rank(side: Side, px: Px) -> i64 {
    match side {
        // The bitwise complement reverses the order and, unlike the negative, cannot overflow.
        Side::Bid => !px.0,
        Side::Ask => px.0,
    }
}

impl BookSide {
    /// A side without levels.
    pub fn new(side: Side) -> Self {
        Self { side, len: 0, chunks: Arc::default(), trusted_rank: None }
    }

    /// How many levels it has.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// It has no level.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The best level.
    pub fn best(&self) -> Option<Level> {
        self.chunks.first().and_then(|chunk| chunk.levels.first()).copied()
    }

    /// The levels, best first.
    pub fn iter(&self) -> impl Iterator<Item = Level> + '_ {
        self.chunks.iter().flat_map(|chunk| chunk.levels.iter().copied())
    }

    /// `a` stands nearer to the top of this side than `b`.
    pub fn is_better(&self, a: Px, b: Px) -> bool {
        rank(self.side, a) < rank(self.side, b)
    }

    pub(crate) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Sets the absolute quantity at a price, 0 to remove the level. Returns whether that changed
    /// anything: to remove a level that is not held is normal and changes nothing.
    pub fn set(&mut self, px: Px, qty: Qty) -> bool {
        let wanted = rank(self.side, px);
        let at = self.chunks.partition_point(|chunk| chunk.last_rank < wanted);
        let Some(chunk) = self.chunks.get(at) else {
            return qty.0 != 0 && self.push_worst(Level { px, qty });
        };
        match chunk.levels.binary_search_by_key(&wanted, |level| rank(self.side, level.px)) {
            Ok(i) if qty.0 == 0 => self.remove(at, i),
            Ok(i) if chunk.levels[i].qty == qty => return false,
            Ok(i) => self.chunk_mut(at)[i].qty = qty,
            Err(_) if qty.0 == 0 => return false,
            Err(i) => {
                self.insert(at, i, Level { px, qty });
                self.len += 1;
                self.split_if_long(at);
            }
        }
        true
    }

    fn push_worst(&mut self, level: Level) -> bool {
        let last_rank = rank(self.side, level.px);
        let chunks = Arc::make_mut(&mut self.chunks);
        self.len += 1;
        match chunks.last_mut() {
            Some(last) => {
                last.last_rank = last_rank;
                Arc::make_mut(&mut last.levels).push(level);
                self.split_if_long(self.chunks.len() - 1);
            }
            None => chunks.push(Chunk { last_rank, levels: Arc::new(vec![level]) }),
        }
        true
    }

    fn insert(&mut self, at: usize, i: usize, level: Level) {
        let levels = &mut Arc::make_mut(&mut self.chunks)[at].levels;
        if let Some(levels) = Arc::get_mut(levels) {
            return levels.insert(i, level);
        }
        // Not a clone, which has no room and would be copied once more at once.
        let (before, after) = levels.split_at(i);
        let mut copy = Vec::with_capacity(levels.len() + CHUNK_LEVELS_SPARE);
        copy.extend_from_slice(before);
        copy.push(level);
        copy.extend_from_slice(after);
        *levels = Arc::new(copy);
    }

    fn chunk_mut(&mut self, at: usize) -> &mut Vec<Level> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[at].levels)
    }

    fn remove(&mut self, at: usize, i: usize) {
        self.len -= 1;
        let len = self.len;
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks[at].levels.len() == 1 {
            chunks.remove(at);
            return;
        }
        Arc::make_mut(&mut chunks[at].levels).remove(i);
        chunks[at].last_rank = last_rank(self.side, &chunks[at].levels);
        // A market that moves away leaves short chunks behind; join them to the next.
        if at + 1 < chunks.len()
            && is_within_aim(2 * (chunks[at].levels.len() + chunks[at + 1].levels.len()), len)
        {
            let next = chunks.remove(at + 1);
            chunks[at].last_rank = next.last_rank;
            Arc::make_mut(&mut chunks[at].levels).extend_from_slice(&next.levels);
        }
    }

    fn chunk_aim(&self) -> usize {
        self.len.isqrt().max(CHUNK_LEVELS_MIN)
    }

    fn split_if_long(&mut self, at: usize) {
        if is_within_aim(self.chunks[at].levels.len().div_ceil(2), self.len) {
            return;
        }
        let side = self.side;
        let chunks = Arc::make_mut(&mut self.chunks);
        let levels = Arc::make_mut(&mut chunks[at].levels);
        let tail = levels.split_off(levels.len() / 2);
        chunks[at].last_rank = last_rank(side, &chunks[at].levels);
        chunks.insert(at + 1, Chunk { last_rank: last_rank(side, &tail), levels: Arc::new(tail) });
    }

    /// Replaces everything by these levels, in any order; of several at one price the last counts,
    /// and zero quantities are left out. `cut_at` is the length at which the venue cuts its images.
    pub fn replace(&mut self, mut levels: Vec<Level>, cut_at: Option<usize>) {
        let side = self.side;
        let received = levels.len();
        // Stable: what came later for one price stays behind, and is the one kept below.
        levels.sort_by_key(|level| rank(side, level.px));
        levels.dedup_by(|later, earlier| {
            later.px == earlier.px && {
                earlier.qty = later.qty;
                true
            }
        });
        levels.retain(|level| level.qty.0 != 0);
        self.len = levels.len();
        self.trusted_rank = match cut_at {
            Some(cut) if received >= cut => levels.last().map(|level| rank(side, level.px)),
            _ => None,
        };
        let aim = self.chunk_aim();
        self.chunks = Arc::new(
            levels
                .chunks(aim)
                .map(|run| Chunk {
                    last_rank: last_rank(side, run),
                    levels: Arc::new(run.to_vec()),
                })
                .collect(),
        );
    }

    /// Removes all but the best `depth` levels; returns whether any was removed.
    pub fn truncate(&mut self, depth: usize) -> bool {
        if self.len <= depth {
            return false;
        }
        let side = self.side;
        let chunks = Arc::make_mut(&mut self.chunks);
        let mut kept = 0;
        let whole = chunks
            .iter()
            .take_while(|chunk| {
                kept += chunk.levels.len();
                kept <= depth
            })
            .count();
        let before: usize = chunks[..whole].iter().map(|chunk| chunk.levels.len()).sum();
        chunks.truncate(whole + usize::from(before < depth));
        if before < depth {
            let last = &mut chunks[whole];
            Arc::make_mut(&mut last.levels).truncate(depth - before);
            last.last_rank = last_rank(side, &last.levels);
        }
        self.len = depth;
        true
    }

    /// Expresses every level in finer units: mantissas times `px_factor` and `qty_factor`.
    /// Returns false, and changes nothing, when one does not fit.
    #[must_use]
    pub fn rescale(&mut self, px_factor: i64, qty_factor: i64) -> bool {
        let scaled: Option<Vec<Level>> = self
            .iter()
            .map(|level| {
                Some(Level {
                    px: Px(level.px.0.checked_mul(px_factor)?),
                    qty: Qty(level.qty.0.checked_mul(qty_factor)?),
                })
            })
            .collect();
        let Some(levels) = scaled else { return false };
        let cut_at = self.trusted_rank.map(|_| levels.len());
        self.replace(levels, cut_at);
        true
    }

    /// How many of the best `depth` levels lie within the venue's image, where that was cut and the
    /// depth reaches beyond the cut: of what lies there, some may be missing.
    pub fn trusted_len(&self, depth: usize) -> Option<usize> {
        let limit = self.trusted_rank?;
        let trusted =
            self.iter().take(depth).take_while(|level| rank(self.side, level.px) <= limit).count();
        (trusted < depth).then_some(trusted)
    }

    /// Levels are sorted without repetition, no quantity is zero or less, and the counts agree.
    pub fn is_sound(&self) -> bool {
        let mut last = None;
        let sorted = self.iter().all(|level| {
            let this = rank(self.side, level.px);
            let rises = last.is_none_or(|last| last < this);
            last = Some(this);
            rises && level.qty.0 > 0
        });
        sorted
            && self.len == self.iter().count()
            && self.chunks.iter().all(|chunk| {
                !chunk.levels.is_empty() && chunk.last_rank == last_rank(self.side, &chunk.levels)
            })
    }
}

/// Whether so many levels are at most what a chunk aims for. Asked with every change, and so without
/// the root.
const fn is_within_aim(levels: usize, side_len: usize) -> bool {
    levels <= CHUNK_LEVELS_MIN || levels * levels <= side_len
}

fn last_rank(side: Side, levels: &[Level]) -> i64 {
    levels.last().map_or(i64::MAX, |level| rank(side, level.px))
}
