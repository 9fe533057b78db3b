// Package words stands for a module that the project vendors.
package words

// Greeting says hello to somebody.
func Greeting(name string) string { return "hello, " + name }
