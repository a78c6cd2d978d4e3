//! tmp
/// tmp
#[derive(Debug, Clone)]
pub struct Clock;
impl Clock {
    /// tmp
    pub fn now(&self) -> u64 { 0 }
}
