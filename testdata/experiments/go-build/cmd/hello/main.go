// Command hello says hello; it leans on text/template so that there is something to compile.
package main

import (
	"os"
	"text/template"

	"example.com/words"
)

func main() {
	page := template.Must(template.New("page").Parse("{{.}}\n"))
	if err := page.Execute(os.Stdout, words.Greeting("one")); err != nil {
		os.Exit(1)
	}
}
