//! Every directory of testdata/plan is a Dockerfile as people write them, with what `kiln debug plan` says of it on
//! linux/amd64. `UPDATE=1 cargo test -p kiln-frontend` writes the plans anew.

mod cases;

use kiln_dockerfile::{Diagnostic, Rule, parse};
use kiln_frontend::{lower_offline, print};

use cases::compare;

#[test]
fn dockerfiles_as_people_write_them() {
    let cases = compare("plan", |case| {
        let (file, found) = parse(&case.text);
        assert_eq!(found, [], "{}", case.name());
        let (options, _) = case.options();
        let plan =
            lower_offline(&file, &options).unwrap_or_else(|errors| panic!("{}: {errors:?}", case.name()));
        // Checks may have something to say of a file that can be built, but that a variable is empty; nothing else has.
        let odd = |one: &&Diagnostic| match one.rule {
            None => true,
            Some(rule) => rule == Rule::UndefinedVar && one.message.ends_with("empty"),
        };
        let odd: Vec<_> = plan.diagnostics.iter().filter(odd).collect();
        assert!(odd.is_empty(), "{}: {odd:?}", case.name());
        print::plan(&plan)
    });
    assert!(cases >= 32, "only {cases} cases");
}
