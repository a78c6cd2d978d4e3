//! Orders → one symbol's book and its trades, by price and then by time.
//!
//! Owned by the market. Prices are whole ticks and quantities whole lots. An order rests in the queue
//! of its price until it is filled or withdrawn; a level is the sum of its queue.

/// No order.
const NONE: u32 = u32::MAX;

/// An order that rests, or did: its number is used again, under another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OrderId {
    place: u32,
    generation: u32,
}

#[derive(Debug, Clone, Copy)]
struct Order {
    generation: u32,
    is_bid: bool,
    ticks: i64,
    /// 0 = it rests no more.
    lots: i64,
    born_ns: u64,
    before: u32,
    behind: u32,
}

/// A price at which orders rest, the oldest first.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// The ticks of a bid, minus those of an offer: more is better.
    rank: i64,
    lots: i64,
    first: u32,
    last: u32,
}

/// A side. Its best level is the last one, because most of what happens, happens near it.
type Side = Vec<Level>;

/// Where the level of a rank is, or would be.
fn find(side: &[Level], rank: i64) -> Result<usize, usize> {
    side.binary_search_by_key(&rank, |level| level.rank)
}

/// The rank of a price, and the price of a rank.
const fn rank(is_bid: bool, ticks: i64) -> i64 {
    if is_bid { ticks } else { -ticks }
}

/// A part of a level is gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fill {
    pub(super) ticks: i64,
    pub(super) lots: i64,
    /// When the order that was filled to its end came; `None` = some of it is left.
    pub(super) born_ns: Option<u64>,
}

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Book {
    bids: Side,
    asks: Side,
    orders: Vec<Order>,
    free: Vec<u32>,
}

impl Book {
    const fn side(&self, is_bid: bool) -> &Side {
        if is_bid { &self.bids } else { &self.asks }
    }

    const fn side_mut(&mut self, is_bid: bool) -> &mut Side {
        if is_bid { &mut self.bids } else { &mut self.asks }
    }

    /// Price and quantity of the best level of a side.
    pub(super) fn best(&self, is_bid: bool) -> Option<(i64, i64)> {
        self.levels(is_bid).next()
    }

    /// The price of the worst level of a side.
    pub(super) fn worst(&self, is_bid: bool) -> Option<i64> {
        self.side(is_bid).first().map(|level| rank(is_bid, level.rank))
    }

    /// How many levels a side has.
    pub(super) const fn depth(&self, is_bid: bool) -> usize {
        self.side(is_bid).len()
    }

    /// What rests at a price.
    pub(super) fn lots(&self, is_bid: bool, ticks: i64) -> i64 {
        let side = self.side(is_bid);
        find(side, rank(is_bid, ticks)).map_or(0, |place| side[place].lots)
    }

    /// Prices and quantities of a side, best first.
    pub(super) fn levels(&self, is_bid: bool) -> impl ExactSizeIterator<Item = (i64, i64)> {
        self.side(is_bid).iter().rev().map(move |level| (rank(is_bid, level.rank), level.lots))
    }

    /// The price of the level at a place of a side, the best at 0.
    pub(super) fn price_at(&self, is_bid: bool, place: usize) -> Option<i64> {
        self.side(is_bid).iter().nth_back(place).map(|level| rank(is_bid, level.rank))
    }

    /// Prices and quantities of the levels of a side that are worse than a price, best first.
    pub(super) fn levels_below(
        &self,
        is_bid: bool,
        ticks: i64,
    ) -> impl Iterator<Item = (i64, i64)> {
        let side = self.side(is_bid);
        let (Ok(end) | Err(end)) = find(side, rank(is_bid, ticks));
        side[..end].iter().rev().map(move |level| (rank(is_bid, level.rank), level.lots))
    }

    /// An order joins the queue of its price, whatever is on the other side. Returns also what rested
    /// there before.
    pub(super) fn rest(
        &mut self,
        is_bid: bool,
        ticks: i64,
        lots: i64,
        now_ns: u64,
    ) -> (OrderId, i64) {
        let place = self.free.pop().unwrap_or_else(|| {
            let new = Order {
                generation: 0,
                is_bid,
                ticks,
                lots: 0,
                born_ns: 0,
                before: NONE,
                behind: NONE,
            };
            self.orders.push(new);
            (self.orders.len() - 1) as u32
        });
        let side = self.side_mut(is_bid);
        let rank = rank(is_bid, ticks);
        let (before, was) = match find(side, rank) {
            Ok(at) => {
                let level = &mut side[at];
                let old = std::mem::replace(
                    level,
                    Level { lots: level.lots + lots, last: place, ..*level },
                );
                (old.last, old.lots)
            }
            Err(at) => {
                side.insert(at, Level { rank, lots, first: place, last: place });
                (NONE, 0)
            }
        };
        if before != NONE {
            self.orders[before as usize].behind = place;
        }
        let order = &mut self.orders[place as usize];
        let generation = order.generation + 1;
        *order = Order { generation, is_bid, ticks, lots, born_ns: now_ns, before, behind: NONE };
        (OrderId { place, generation }, was)
    }

    /// Side and price of an order; `None` if it rests no more.
    pub(super) fn place_of(&self, id: OrderId) -> Option<(bool, i64)> {
        let order = self.orders.get(id.place as usize)?;
        let rests = order.generation == id.generation && order.lots > 0;
        rests.then_some((order.is_bid, order.ticks))
    }

    /// The oldest order of the worst level of a side.
    pub(super) fn oldest_of_worst(&self, is_bid: bool) -> Option<OrderId> {
        let place = self.side(is_bid).first()?.first;
        Some(OrderId { place, generation: self.orders[place as usize].generation })
    }

    /// An order is withdrawn. Returns when it came, and what rested at its price before; `None` if it
    /// rests no more.
    pub(super) fn withdraw(&mut self, id: OrderId) -> Option<(u64, i64)> {
        self.place_of(id)?;
        let was = self.remove(id.place);
        Some((self.orders[id.place as usize].born_ns, was))
    }

    /// An incoming order takes from a side, best price and oldest order first, up to a price and a
    /// quantity. Tells of each part; returns what it did not get.
    pub(super) fn take(
        &mut self,
        is_bid: bool,
        limit_ticks: i64,
        lots: i64,
        mut tell: impl FnMut(Fill),
    ) -> i64 {
        let mut wanted = lots;
        while wanted > 0
            && let Some(best) = self.side(is_bid).last()
            && best.rank >= rank(is_bid, limit_ticks)
        {
            let (ticks, first) = (rank(is_bid, best.rank), best.first);
            let order = &mut self.orders[first as usize];
            let taken = order.lots.min(wanted);
            wanted -= taken;
            if taken < order.lots {
                order.lots -= taken;
                if let Some(level) = self.side_mut(is_bid).last_mut() {
                    level.lots -= taken;
                }
                tell(Fill { ticks, lots: taken, born_ns: None });
            } else {
                let born_ns = Some(order.born_ns);
                self.remove(first);
                tell(Fill { ticks, lots: taken, born_ns });
            }
        }
        wanted
    }

    /// The quantity of the first orders of a side, best price and oldest order first.
    pub(super) fn lots_of_first(&self, is_bid: bool, orders: u64) -> i64 {
        let (mut left, mut sum) = (orders, 0);
        for level in self.side(is_bid).iter().rev() {
            let mut place = level.first;
            while place != NONE && left > 0 {
                let order = &self.orders[place as usize];
                sum += order.lots;
                place = order.behind;
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        sum
    }

    /// All prices become this many times as many ticks.
    pub(super) fn refine(&mut self, times: i64) {
        for level in self.bids.iter_mut().chain(&mut self.asks) {
            level.rank *= times;
        }
        for order in &mut self.orders {
            order.ticks *= times;
        }
    }

    /// An order rests no more. Returns what rested at its price before.
    fn remove(&mut self, place: u32) -> i64 {
        let order = &mut self.orders[place as usize];
        let Order { is_bid, ticks, lots, before, behind, .. } = *order;
        order.lots = 0;
        if before != NONE {
            self.orders[before as usize].behind = behind;
        }
        if behind != NONE {
            self.orders[behind as usize].before = before;
        }
        self.free.push(place);
        let side = self.side_mut(is_bid);
        let Ok(at) = find(side, rank(is_bid, ticks)) else { return 0 };
        let level = &mut side[at];
        let was = level.lots;
        level.lots -= lots;
        if before == NONE {
            level.first = behind;
        }
        if behind == NONE {
            level.last = before;
        }
        if level.first == NONE {
            side.remove(at);
        }
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fills(book: &mut Book, is_bid: bool, limit: i64, lots: i64) -> (Vec<(i64, i64)>, i64) {
        let mut fills = Vec::new();
        let left = book.take(is_bid, limit, lots, |fill| fills.push((fill.ticks, fill.lots)));
        (fills, left)
    }

    #[test]
    fn the_best_price_goes_first_and_at_one_price_who_came_first() {
        let mut book = Book::default();
        for (ticks, lots) in [(101, 5), (100, 3), (100, 4), (102, 9)] {
            book.rest(false, ticks, lots, 0);
        }
        assert_eq!(fills(&mut book, false, 101, 10), (vec![(100, 3), (100, 4), (101, 3)], 0));
        assert_eq!(book.levels(false).collect::<Vec<_>>(), [(101, 2), (102, 9)]);
        assert_eq!(
            fills(&mut book, false, 101, 10),
            (vec![(101, 2)], 8),
            "no worse than its limit"
        );
    }

    #[test]
    fn an_order_is_withdrawn_once_from_any_place_of_its_queue() {
        let mut book = Book::default();
        let rested = [1, 2, 4].map(|lots| book.rest(true, 50, lots, 7));
        assert_eq!(rested.map(|(_, was)| was), [0, 1, 3]);
        let ids = rested.map(|(id, _)| id);
        assert_eq!(book.withdraw(ids[1]), Some((7, 7)));
        assert_eq!(book.withdraw(ids[1]), None);
        let (new, was) = book.rest(true, 50, 8, 9);
        assert_eq!(was, 5);
        assert_eq!(book.withdraw(ids[1]), None, "its number is another order's now");
        assert_eq!(book.lots_of_first(true, 2), 5);
        assert_eq!(book.withdraw(ids[0]), Some((7, 13)));
        assert_eq!(book.withdraw(ids[2]), Some((7, 12)));
        assert_eq!(book.best(true), Some((50, 8)));
        assert_eq!(book.withdraw(new), Some((9, 8)));
        assert_eq!(book.best(true), None);
        assert_eq!(book.depth(true), 0);
    }
}
