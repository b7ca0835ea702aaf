//! A linker script that names inputs.

use relink_formats::script;

/// No panic; what is a script stays one behind white space.
pub(super) fn judge(data: &[u8]) {
    let is_script = script::looks_like_script(data);
    let items = script::parse(data);
    let moved = [b" \n", data].concat();
    assert_eq!(script::parse(&moved).ok(), items.ok(), "white space in front");
    let _ = (is_script, script::looks_like_script(&moved));
}
