//! Scenario D: one edited unit, two images, all patched or all fallen back.

use relink::{Input, InputId, LinkError, LinkGroup, Outcome};
use relink_tests::cc::Opt;
use relink_tests::fixture::{self, App, Core};
use relink_tests::program::{self, Program, assert_behaves, assert_same_bytes};

/// The two programs as a group.
struct Pair {
    group: LinkGroup,
    archives: Vec<InputId>,
    core: Core,
}

impl Pair {
    #[track_caller]
    fn new(opt: Opt) -> Pair {
        let core = Core::new(opt);
        let mut group = LinkGroup::new();
        let mut archives = Vec::new();
        for (number, app) in App::BOTH.into_iter().enumerate() {
            let program = Program::new(program::incremental(), &core.inputs(app));
            archives.push(program.id_of(fixture::ARCHIVE));
            assert_eq!(group.add(program.session), number);
        }
        assert_eq!(group.resolve().unwrap(), [Outcome::Full; 2]);
        Pair { group, archives, core }
    }

    /// Replaces the archive in both, and links both.
    #[track_caller]
    fn edit(&mut self, core: &Core) -> Result<Vec<Outcome>, LinkError> {
        let archive = core.archive();
        for (index, id) in self.archives.iter().enumerate() {
            let input = Input::bytes(fixture::ARCHIVE, archive.clone());
            self.group.session_mut(index).replace_input(*id, input).unwrap();
        }
        self.group.resolve()
    }

    #[track_caller]
    fn assert_behaves(&mut self, core: &Core) {
        for (index, app) in App::BOTH.into_iter().enumerate() {
            let session = self.group.session_mut(index);
            assert_eq!(session.verify().unwrap(), []);
            assert_behaves(&session.image(), &core.inputs(app));
        }
    }

    fn images(&self) -> [Vec<u8>; 2] {
        [0, 1].map(|index| self.group.session(index).image().to_vec())
    }
}

#[test]
fn d_both_images_patch() {
    for opt in Opt::ACCEPTANCE {
        for define in ["TBL_GET_EDIT", "TBL_SUM_GROW=1"] {
            let mut pair = Pair::new(opt);
            let core = pair.core.edited("table", &[define]);
            assert_eq!(pair.edit(&core).unwrap(), [Outcome::Patched; 2]);
            pair.assert_behaves(&core);
        }
    }
}

#[test]
fn d_both_images_fall_back_even_if_one_could_patch() {
    for opt in Opt::ACCEPTANCE {
        // app_b refers to no feature_level, so that its link alone would find nothing to fall back for.
        for (unit, define) in [("weakdef", "STRONG"), ("table", "CALL_OPT_HELPER"), ("state", "CONFIG_BIG")] {
            let mut pair = Pair::new(opt);
            let core = pair.core.edited(unit, &[define]);
            assert_eq!(pair.edit(&core).unwrap(), [Outcome::FellBackFull; 2], "{unit} {define}");
            pair.assert_behaves(&core);
            for (image, app) in pair.images().iter().zip(App::BOTH) {
                let fresh = Program::linked(program::incremental(), &core.inputs(app));
                assert_same_bytes(image, &fresh.image(), "fallback and link from scratch");
            }
        }
    }
}

#[test]
fn d_an_error_in_one_leaves_both() {
    for opt in Opt::ACCEPTANCE {
        let mut pair = Pair::new(opt);
        let before = pair.images();
        // Only app_b refers to state_sum.
        let bad = fixture::unit(opt, "state", &["state_sum=other_name"]);
        let bad = pair.core.replaced("state", bad);
        assert!(pair.edit(&bad).is_err());
        assert!(pair.images() == before, "both images stay");
        let core = pair.core.edited("table", &["TBL_GET_EDIT"]);
        assert_eq!(pair.edit(&core).unwrap(), [Outcome::Patched; 2]);
        pair.assert_behaves(&core);
    }
}
