//! The scenarios that come with the simulator, by name: one file of `feed-sim/scenarios` each.

/// Name and text.
const LIBRARY: &[(&str, &str)] = &[
    ("gap", include_str!("../../scenarios/gap.toml")),
    ("gaps", include_str!("../../scenarios/gaps.toml")),
    ("duplicate", include_str!("../../scenarios/duplicate.toml")),
    ("reorder", include_str!("../../scenarios/reorder.toml")),
    ("image-1-behind", include_str!("../../scenarios/image-1-behind.toml")),
    ("image-2-behind", include_str!("../../scenarios/image-2-behind.toml")),
    ("image-1-ahead", include_str!("../../scenarios/image-1-ahead.toml")),
    ("image-2-ahead", include_str!("../../scenarios/image-2-ahead.toml")),
    ("late-image", include_str!("../../scenarios/late-image.toml")),
    ("wrong-checksum", include_str!("../../scenarios/wrong-checksum.toml")),
    ("zero-checksum", include_str!("../../scenarios/zero-checksum.toml")),
    ("crossed", include_str!("../../scenarios/crossed.toml")),
    ("ack-but-silent", include_str!("../../scenarios/ack-but-silent.toml")),
    ("silence", include_str!("../../scenarios/silence.toml")),
    ("half-open", include_str!("../../scenarios/half-open.toml")),
    ("cut-in-the-head", include_str!("../../scenarios/cut-in-the-head.toml")),
    ("cut-in-the-middle", include_str!("../../scenarios/cut-in-the-middle.toml")),
    ("giant-frame", include_str!("../../scenarios/giant-frame.toml")),
    ("fragmented", include_str!("../../scenarios/fragmented.toml")),
    ("drip", include_str!("../../scenarios/drip.toml")),
    ("bad-utf8", include_str!("../../scenarios/bad-utf8.toml")),
    ("bad-json", include_str!("../../scenarios/bad-json.toml")),
    ("rate-limit", include_str!("../../scenarios/rate-limit.toml")),
    ("ban", include_str!("../../scenarios/ban.toml")),
    ("all-cut", include_str!("../../scenarios/all-cut.toml")),
    ("close-notice", include_str!("../../scenarios/close-notice.toml")),
    ("maintenance", include_str!("../../scenarios/maintenance.toml")),
    ("clock-back", include_str!("../../scenarios/clock-back.toml")),
    ("clock-ahead", include_str!("../../scenarios/clock-ahead.toml")),
    ("tick-change", include_str!("../../scenarios/tick-change.toml")),
    ("halt", include_str!("../../scenarios/halt.toml")),
    ("delist", include_str!("../../scenarios/delist.toml")),
    ("listing", include_str!("../../scenarios/listing.toml")),
    ("numbers-restart", include_str!("../../scenarios/numbers-restart.toml")),
    ("keep-alive", include_str!("../../scenarios/keep-alive.toml")),
    ("zero-spelling", include_str!("../../scenarios/zero-spelling.toml")),
    ("exponent", include_str!("../../scenarios/exponent.toml")),
    ("field-order", include_str!("../../scenarios/field-order.toml")),
    ("absent-level", include_str!("../../scenarios/absent-level.toml")),
    ("burst", include_str!("../../scenarios/burst.toml")),
    ("storm", include_str!("../../scenarios/storm.toml")),
];

/// Names and texts of all of them.
pub fn library() -> impl Iterator<Item = (&'static str, &'static str)> {
    LIBRARY.iter().copied()
}

/// The text of the one with this name.
pub fn library_text(name: &str) -> Option<&'static str> {
    library().find_map(|(known, text)| (known == name).then_some(text))
}
