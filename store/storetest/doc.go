// Package storetest holds the tests that every [store.Store] passes. A backend's own tests call [Run].
package storetest
