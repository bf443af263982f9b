/** Wire shapes of the Jobs API and of templates (snake_case). */
export {}
