// Package patience has the context of a request that is served: it ends when the caller is gone, or its deadline has
// passed. See [Context] for what it spares.
package patience
