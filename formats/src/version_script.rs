//! stub
#![allow(missing_docs)]
#[derive(Debug, Clone)]
pub struct Node {
    pub name: Option<String>,
    pub parents: Vec<u16>,
}
#[derive(Debug, Clone)]
pub struct VersionScript {
    pub nodes: Vec<Node>,
}
pub enum Assigned {
    Unlisted,
    Local,
    Version(u16),
}
impl VersionScript {
    pub fn parse(_: &str) -> Result<VersionScript, String> {
        Ok(VersionScript { nodes: vec![] })
    }
    pub fn merge(self, o: VersionScript) -> Result<VersionScript, String> {
        Ok(o)
    }
    pub fn assign(&self, _: &[u8], _: impl Fn() -> Option<String>) -> Assigned {
        Assigned::Unlisted
    }
}
