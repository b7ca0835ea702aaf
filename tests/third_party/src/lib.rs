//! Nothing: the manifest beside this file pins C sources for the tests of real programs.
