//! `cargo xtask simulate`: runs scenarios of the simulation of a whole shepherd, which is a test of the core.

use crate::command::{self, cargo};
use crate::{Result, setup};

/// How many seeds the test takes, and from which one on.
pub(crate) const SEEDS: &str = "SHEPHERD_SIM_SEEDS";
const FROM: &str = "SHEPHERD_SIM_FROM";
const SEED: &str = "SHEPHERD_SIM_SEED";
const TRACE: &str = "SHEPHERD_SIM_TRACE";

/// Seeds of every run of all tests. On two cores they take less than two minutes.
pub(crate) const SEEDS_OF_ALL_TESTS: &str = "20000";

/// Which scenarios are run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Simulate {
    seeds: Option<u64>,
    from: Option<u64>,
    /// This one alone.
    seed: Option<u64>,
    /// Whether everything that happens is printed.
    trace: bool,
}

impl Simulate {
    pub(crate) fn parse(arguments: &[String]) -> Option<Self> {
        let mut parsed = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let number = match word.as_str() {
                "--seeds" => &mut parsed.seeds,
                "--from" => &mut parsed.from,
                "--seed" => &mut parsed.seed,
                "--trace" => {
                    parsed.trace = true;
                    continue;
                }
                _ => return None,
            };
            *number = Some(words.next()?.parse().ok()?);
        }
        let is_one = parsed.seed.is_some();
        let is_clear = if is_one { parsed.seeds.is_none() && parsed.from.is_none() } else { !parsed.trace };
        is_clear.then_some(parsed)
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let numbers = [(SEEDS, self.seeds), (FROM, self.from), (SEED, self.seed)];
        let mut variables: Vec<_> =
            numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string()))).collect();
        if self.trace {
            variables.push((TRACE, "1".to_owned()));
        }
        variables
    }
}

/// Runs the scenarios; what failed is printed with the end of its trace.
pub(crate) fn run(simulate: &Simulate) -> Result<()> {
    setup::build_tools()?;
    let mut test = cargo();
    test.args([
        "test",
        "--locked",
        "-p",
        "shepherd-core",
        "--lib",
        "simulation::scenarios",
        "--",
        "--nocapture",
    ]);
    command::run("simulating", test.envs(simulate.variables()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Simulate> {
        Simulate::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn scenarios_are_chosen_by_seed() {
        let variables = |line: &str| {
            let variables = parse(line).unwrap().variables();
            variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(variables(""), "");
        assert_eq!(variables("--seeds 5 --from 7"), "SHEPHERD_SIM_SEEDS=5 SHEPHERD_SIM_FROM=7");
        assert_eq!(variables("--seed 12 --trace"), "SHEPHERD_SIM_SEED=12 SHEPHERD_SIM_TRACE=1");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--seed", "--seed x", "--trace", "--seed 1 --seeds 2", "--fast", "5"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
