// Command hello says hello; it leans on net/http so that there is something to compile.
package main

import (
	"fmt"
	"net/http"

	"example.com/words"
)

func main() {
	fmt.Println(words.Greeting("one"), http.StatusOK)
}
