// Package demo shows execgate in one process: the demo identity API, an example
// target, and the gateway between them on an embedded store.
//
// Run starts them and takes a tour: each step does something that an operator
// would do, shows what came of it, and fails when it is not what was promised.
// Then it prints how to go on by hand and stays up.
//
// The gateway is brought in by Options.Start, so that the tour depends on its
// addresses only; StartGateway is the one to use.
package demo
