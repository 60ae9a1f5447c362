// Package cli is the part of the command line that talks to a running gateway:
// commands for targets, executions, policies, switches and the configuration
// as code, all of them clients of the admin API over gRPC.
//
// [Commands] returns them for the root command. A command ends with nil when it
// is done, with a [*Failure] when the gateway or the machine said no, and with
// any other error when it was called wrongly: exit codes 0, 1 and 2.
//
// Arguments are checked before anything is called. What is shown is a table for
// people or, with -o json and -o yaml, messages of the API with the names that
// protojson gives their fields (output.go). How the gateway is found is in
// connection.go, what an error tells a person in failure.go.
package cli
