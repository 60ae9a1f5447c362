// Package config turns a YAML file and the environment into a typed [Config].
//
// Start at [Load]. It reads strictly: an unknown key, a wrong type, a bad
// duration, address, URL or CIDR, a missing file or two keys that exclude one
// another are faults. All faults of a configuration are collected and returned
// together as [Faults], each with the line or the variable that it came from
// and with what to do about it.
//
// Every key has an environment variable that overrides the file: its path in
// upper case, dots as underscores, after "EXECGATE_" (proxy.listen is
// EXECGATE_PROXY_LISTEN). Values that must not be seen are of type [Secret],
// which prints itself as "REDACTED" everywhere.
//
// The package is a leaf: it knows no other package of this module, opens no
// socket and resolves no name.
package config
